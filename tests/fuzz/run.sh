#!/usr/bin/env bash
# Fuzz the fused decoder of JPEGs, PNGs or WebPs, the warp of augmentation, the framing of samples, the packer's loop, or
# the readers of archives and lists, under AddressSanitizer and UndefinedBehaviorSanitizer.
#
#   tests/fuzz/run.sh [SECONDS] [JPEG_PREFIX]
#   tests/fuzz/run.sh png|webp [SECONDS]    (png needs zlib's headers, to compare with)
#   tests/fuzz/run.sh gather [SECONDS]      (needs python3-config, and Python's headers)
#   tests/fuzz/run.sh archives|augment|frames|lists [SECONDS]
#   tests/fuzz/run.sh ahead|output          (threads of the early listing, and the one that writes a shard, under
#                                            ThreadSanitizer and both others)
#
# Needs clang with libFuzzer. JPEG_PREFIX: a libjpeg-turbo with static library and headers, best built with
# -fsanitize=address,undefined,fuzzer-no-link and without SIMD, so that its own memory errors are seen too; without it
# the installed one is linked. What was found stays in the working folder: build/fuzz/corpus and build/fuzz/crash-*.
# SEEDS names a folder of more seeds, as photo_seeds.py makes them of photographs; SEED is libFuzzer's, to repeat a run.
set -euo pipefail
cd "$(dirname "$0")/../.."

what=jpeg
case ${1:-} in ahead | archives | augment | frames | gather | lists | output | png | webp)
    what=$1
    shift
    ;;
esac
seconds=${1:-60}
prefix=${2:-}
sanitizers=address,undefined
work=build/fuzz
mkdir -p "$work/corpus"

flags=(-g -O1 -fsanitize="$sanitizers,fuzzer" -fno-sanitize-recover=undefined)
if [ "$what" = ahead ] || [ "$what" = output ]; then
    for sanitizer in thread "$sanitizers"; do
        clang -g -O1 -fsanitize="$sanitizer" -fno-sanitize-recover=all "tests/fuzz/race_$what.c" -lpthread \
            -o "$work/race_$what"
        "$work/race_$what"
    done
    exit
fi
if [ "$what" = augment ]; then
    clang "${flags[@]}" -ffp-contract=off tests/fuzz/fuzz_augment.c -lm -o "$work/fuzz_augment"
    mkdir -p "$work/corpus-augment"
    exec "$work/fuzz_augment" -max_total_time="$seconds" -max_len=400 -timeout=20 -seed="${SEED:-0}" \
        -artifact_prefix="$work/" -print_final_stats=1 "$work/corpus-augment"
fi
if [ "$what" = archives ]; then
    clang "${flags[@]}" tests/fuzz/fuzz_archives.c -o "$work/fuzz_archives"
    mkdir -p "$work/corpus-archives"
    seed=$(mktemp -d)
    for name in cat/a.jpg "$(printf 'd%.0s' {1..60})/$(printf 'e%.0s' {1..60})/b.jpg"; do
        mkdir -p "$seed/$(dirname "$name")" && echo abc >"$seed/$name"
    done
    for form in ustar gnu pax; do # behind switches and the place to begin
        { printf '\001\000' && tar c --format=$form -C "$seed" .; } >"$work/corpus-archives/seed-$form"
    done
    zip=UEsBAhQDFAAAAAAAAAAAAMJBJDUDAAAAAwAAAAUAAAAAAAAAAAAAAKQBAAAAAGEuanBn # the entry of a file a.jpg
    { printf '\000\000' && base64 -d <<<"$zip"; } >"$work/corpus-archives/seed-zip"
    rm -r "$seed"
    exec "$work/fuzz_archives" -max_total_time="$seconds" -max_len=80000 -timeout=20 -seed="${SEED:-0}" \
        -artifact_prefix="$work/" -print_final_stats=1 "$work/corpus-archives"
fi
if [ "$what" = frames ]; then
    clang "${flags[@]}" tests/fuzz/fuzz_frames.c -o "$work/fuzz_frames"
    mkdir -p "$work/corpus-frames"
    exec "$work/fuzz_frames" -max_total_time="$seconds" -max_len=20000 -timeout=20 -seed="${SEED:-0}" \
        -artifact_prefix="$work/" -print_final_stats=1 "$work/corpus-frames" tests/fuzz/seeds
fi
if [ "$what" = lists ]; then
    clang "${flags[@]}" tests/fuzz/fuzz_lists.c -o "$work/fuzz_lists"
    mkdir -p "$work/corpus-lists"
    # behind switches, the lengths of root and extensions, the root, and one extension; line feeds begin names
    printf '\000\002\003/djpgcat/a.jpg\n/b.jpg' >"$work/corpus-lists/seed"
    exec "$work/fuzz_lists" -max_total_time="$seconds" -max_len=4000 -timeout=20 -seed="${SEED:-0}" \
        -artifact_prefix="$work/" -print_final_stats=1 "$work/corpus-lists"
fi
if [ "$what" = gather ]; then
    read -ra python <<<"$(python3-config --includes --ldflags --embed | tr '\n' ' ')"
    clang "${flags[@]}" tests/fuzz/fuzz_gather.c "${python[@]}" -o "$work/fuzz_gather"
    mkdir -p "$work/corpus-gather"
    for seed in tests/fuzz/seeds/*; do # behind lengths, switches, key, field and path
        { printf '\003\003\001\001keyjpgp' && cat "$seed" && printf '\377\331'; } >"$work/corpus-gather/seed-${seed##*/}"
    done
    png=iVBORw0KGgoAAAANSUhEUgAAAAQAAAADCAMAAACDKl70AAAABGdBTUExMjM0MYJf8gAAAAZQTFRFAAAAAAAApWe5zwAAAAF0Uk5TMRE42FwAAAALSURBVHjaY2BAAQAADwABJvJe2QAAAABJRU5ErkJggg== # 4 x 3 with gAMA, PLTE and tRNS
    { printf '\003\003\001\001keypngp' && base64 -d <<<"$png"; } >"$work/corpus-gather/seed-png"
    export ASAN_OPTIONS=detect_leaks=0 PYTHONMALLOC=malloc # what Python keeps to its end is no leak
    LD_LIBRARY_PATH=$(python3-config --prefix)/lib exec "$work/fuzz_gather" -max_total_time="$seconds" -max_len=20000 \
        -timeout=20 -detect_leaks=0 -seed="${SEED:-0}" -artifact_prefix="$work/" -print_final_stats=1 \
        "$work/corpus-gather"
fi
if [ "$what" = png ]; then
    clang "${flags[@]}" tests/fuzz/fuzz_png.c -lz -lm -o "$work/fuzz_png"
    mkdir -p "$work/corpus-png"
    exec "$work/fuzz_png" -max_total_time="$seconds" -max_len=20000 -timeout=20 -rss_limit_mb=2000 -seed="${SEED:-0}" \
        -artifact_prefix="$work/" -print_final_stats=1 "$work/corpus-png"
fi
if [ "$what" = webp ]; then
    clang "${flags[@]}" tests/fuzz/fuzz_webp.c -lwebp -lm -o "$work/fuzz_webp"
    mkdir -p "$work/corpus-webp"
    exec "$work/fuzz_webp" -max_total_time="$seconds" -max_len=8000 -timeout=20 -rss_limit_mb=2000 -seed="${SEED:-0}" \
        -artifact_prefix="$work/" -print_final_stats=1 "$work/corpus-webp"
fi
if [ -n "$prefix" ]; then
    flags+=("-I$prefix/include" "-I$prefix")
    library=$(find "$prefix" -name libjpeg.a | head -n 1)
else
    library=-ljpeg
fi
clang "${flags[@]}" tests/fuzz/fuzz_jpeg.c "$library" -lm -o "$work/fuzz_jpeg"
exec "$work/fuzz_jpeg" -max_total_time="$seconds" -max_len=20000 -timeout=20 -rss_limit_mb=2000 \
    -seed="${SEED:-0}" -artifact_prefix="$work/" -print_final_stats=1 "$work/corpus" tests/fuzz/seeds ${SEEDS:+"$SEEDS"}
