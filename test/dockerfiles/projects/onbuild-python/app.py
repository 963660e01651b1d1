from twice import twice

print(twice(21), open("extra").read().strip())
