-- Store as many sessions as the argument says: JSON of about 1 kB with a token, a user and a cart.
for number = 0, tonumber(ARGV[1]) - 1 do
	local parts = {}
	for item = 1, 8 do
		parts[item] = string.format('{"item":%d,"count":%d,"price":%d.%02d,"options":"%s"}', math.random(100000),
			math.random(9), math.random(500), math.random(99), string.rep('colour=blue;', math.random(4)))
	end
	local token = {}
	for word = 1, 8 do
		token[word] = string.format('%04x', math.random(0, 65535))
	end
	redis.call('SET', string.format('session:%012d', number), string.format(
		'{"token":"%s","user":%d,"seen":"2026-11-%02dT%02d:%02d","cart":[%s]}', table.concat(token), math.random(1000000),
		math.random(28), math.random(0, 23), math.random(0, 59), table.concat(parts, ',')))
end
return ARGV[1]
