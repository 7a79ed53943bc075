"""Memory that the processes of a machine share: what one of them fetched or decoded, the others map."""
