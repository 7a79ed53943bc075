/* Memory that grows by doubling. */
#ifndef SHARDKIT_GROW_H
#define SHARDKIT_GROW_H

#include <stdlib.h>

/* Room for `wanted` pieces of `each` bytes, of which there is room for `*room`. 0: no memory. */
static int grow(void **memory, size_t *room, size_t wanted, size_t each)
{
    if (wanted <= *room)
        return 1;
    const size_t more = *room * 2 > wanted ? *room * 2 : wanted;
    void *grown = realloc(*memory, more * each);
    if (grown == NULL)
        return 0;
    *memory = grown;
    *room = more;
    return 1;
}

#endif
