"""`python -m tfxfer`: the same as `tfxfer`."""

from tfxfer.cli import main

main(prog_name="tfxfer")
