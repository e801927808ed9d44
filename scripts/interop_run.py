"""Runs one script of the Eclipse Paho interoperability suites; scripts/interop calls it in the folder of the suite.

usage: interop_run.py NAME HOST PORT [TEST ...]

The scripts read host and port from sys.argv and then call unittest.main(), which reads sys.argv again and does not know their
options. So that call is given an argument list of its own. (-h would be taken for --help.)
"""

import runpy
import sys
import unittest

name, host, port, *tests = sys.argv[1:]
unittest_main = unittest.main
unittest.main = lambda: unittest_main(module="__main__", argv=[name, *tests], verbosity=2)
sys.path.insert(0, ".")
sys.argv = [name + ".py", "--hostname", host, "-p", port]
runpy.run_path(name + ".py", run_name="__main__")
