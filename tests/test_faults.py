#!/usr/bin/env python3
"""A few failing calls of every command; `make faults` steps through all, and says more.

cvq-test: once
"""
import sys

import faults

if __name__ == '__main__':
    sys.exit(faults.main(['--sample', '8']))
