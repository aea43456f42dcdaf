#!/bin/sh
# Fill Redis with sessions, then visit them: 5,000 reads at random keys, and 500 that add to a session.
set -e
count=${1:-20000}
redis-cli -e --eval /usr/local/share/sessions.lua , "$count"
redis-benchmark -c 4 -r "$count" -n 5000 -q get session:__rand_int__
redis-benchmark -c 4 -r "$count" -n 500 -q append session:__rand_int__ ',{"item":4711,"count":1,"note":"added by a visit"}'
