import sys


def shout(text):
    return text.upper() + "!"


def main():
    print(shout(" ".join(sys.argv[1:])))
