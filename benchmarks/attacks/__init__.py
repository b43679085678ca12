"""What benchmarks/attack.py tries, a file each. See there."""
