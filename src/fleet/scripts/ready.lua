#!lua flags=allow-oom
-- Does nothing. A script that may write is refused by a server that takes no writes at the moment, before it runs.
return 1
