from setuptools import setup

setup(name="shout", version="1.0", py_modules=["shout"], entry_points={"console_scripts": ["shout=shout:main"]})
