from shout import shout

print(shout("it works"))
