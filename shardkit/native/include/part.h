/* What each part says of itself: the digest of the sources that it was built from, as its docstring. setup.py gives it,
 * and native/__init__.py compares it with the sources beside the part. */
#ifndef SHARDKIT_PART_H
#define SHARDKIT_PART_H

#define PART_TEXT_OF(text) #text
#define PART_TEXT(text) PART_TEXT_OF(text)

#ifdef PART_DIGEST
#define PART_SOURCES PART_TEXT(PART_DIGEST)
#else
#define PART_SOURCES NULL
#endif

#endif
