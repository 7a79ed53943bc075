// Byte ranges from any static server or bucket: at most SLOTS requests at a time, and errors that say what to do.

const SLOTS = 6;

/** An error for the reader of the page: what is wrong, and the cure. fatal: nothing else can be read either. */
class PageError extends Error {
  constructor(title, cure, { fatal = false, code = "" } = {}) {
    super(title);
    this.cure = cure;
    this.fatal = fatal;
    this.code = code;
  }
}

function shown(url) {
  try {
    return decodeURI(new URL(url).pathname.split("/").pop() || url);
  } catch {
    return url;
  } // bytes that are not UTF-8
}

const slots = {
  free: SLOTS,
  waiting: [],
  async take(signal) {
    if (this.free > 0) {
      this.free--;
      return;
    }
    await new Promise((resolve, reject) => {
      const entry = { resolve };
      this.waiting.push(entry);
      signal?.addEventListener("abort", () => {
        const at = this.waiting.indexOf(entry);
        if (at >= 0) {
          this.waiting.splice(at, 1);
          reject(signal.reason);
        }
      });
    });
  },
  give() {
    const next = this.waiting.shift();
    if (next) next.resolve();
    else this.free++;
  },
};

async function request(url, options, signal) {
  await slots.take(signal);
  try {
    for (let attempt = 1; ; attempt++) {
      let answer = null;
      try {
        answer = await fetch(url, { ...options, signal, credentials: "same-origin" });
        if (answer.status < 500 && answer.status !== 429) return await options.read(answer);
      } catch (error) {
        if (signal?.aborted || error instanceof PageError || attempt > 2) throw unreachable(error, url, signal);
      }
      if (answer && attempt > 2) throw refused(answer, url);
      await new Promise((resolve) => setTimeout(resolve, 300 * attempt));
    }
  } finally {
    slots.give();
  }
}

function unreachable(error, url, signal) {
  if (signal?.aborted || error instanceof PageError) return error;
  if (new URL(url).origin !== location.origin) {
    return new PageError(
      `${new URL(url).host} can't be read from this page`,
      "The server can't be reached, or does not allow other pages to read it (CORS). Allow this page's origin for GET, " +
        "with the header Range, and expose Content-Range; or put the page beside the shards.",
      { fatal: true, code: "cors" },
    );
  }
  return new PageError(
    `${shown(url)} can't be read: the server does not answer`,
    "Check the connection, and try again.",
    { code: "network" },
  );
}

function refused(answer, url) {
  if (answer.status === 404 || answer.status === 410) {
    return new PageError(
      `${shown(url)} is not there (status ${answer.status})`,
      "The dataset may have been moved or replaced. Reload the page; it must lie where it was written for.",
      { code: "missing" },
    );
  }
  if (answer.status === 401 || answer.status === 403) {
    return new PageError(
      `${shown(url)} may not be read (status ${answer.status})`,
      "Ask for access to the files, or log in to the server.",
      { code: "denied" },
    );
  }
  if (answer.status === 416) return changed(url);
  return new PageError(`${shown(url)}: the server answers with status ${answer.status}`, "Try again later.", {
    code: "server",
  });
}

function changed(url) {
  return new PageError(
    `${shown(url)} has changed since the page was loaded`,
    "The dataset was replaced, or its files do not belong together. Reload the page; if it stays, run shardkit verify.",
    { code: "changed" },
  );
}

/** A whole JSON file, always the newest. */
function readJson(url) {
  const read = async (answer) => {
    if (!answer.ok) throw refused(answer, url);
    try {
      return await answer.json();
    } catch {
      throw new PageError(`${shown(url)} is not a manifest`, "Check where the page lies.", { code: "manifest" });
    }
  };
  return request(url, { cache: "no-cache", read });
}

const plainTag = (tag) => tag.replace(/^W\//, "").replaceAll('"', "");

/** Bytes `begin` to `end` of a file of `total` bytes. version: the ETag that it must have; null for any. */
function readRange(url, begin, end, total, signal, version = null) {
  const read = async (answer) => {
    const whole = begin === 0 && end === total;
    if (answer.status === 200 && !whole) {
      answer.body?.cancel();
      throw new PageError(
        "This server does not answer requests for parts of files",
        "The page reads parts of shards (HTTP Range), which python -m http.server, among others, can't send. " +
          "Use the server of shardkit view --html --serve, nginx, Caddy, Apache, or a bucket.",
        { fatal: true, code: "ranges" },
      );
    }
    if (answer.status !== 206 && answer.status !== 200) throw refused(answer, url);
    const size = answer.status === 206 && /\/(\d+)$/.exec(answer.headers.get("Content-Range") || "");
    if (size && Number(size[1]) !== total) throw changed(url);
    const tag = version && answer.headers.get("ETag");
    if (tag && plainTag(tag) !== plainTag(version)) throw changed(url);
    const bytes = new Uint8Array(await answer.arrayBuffer());
    if (bytes.length !== end - begin) throw changed(url);
    return bytes;
  };
  return request(url, { headers: { Range: `bytes=${begin}-${end - 1}` }, read }, signal);
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  // CRC-32C, reflected
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? (byte >>> 1) ^ 0x82f63b78 : byte >>> 1;
  return byte;
});

function crc32c(bytes) {
  let sum = ~0;
  for (const byte of bytes) sum = CRC[(sum ^ byte) & 255] ^ (sum >>> 8);
  return ~sum >>> 0;
}
