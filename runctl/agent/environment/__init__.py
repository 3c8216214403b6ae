"""The Python environment of the ranks.

ready         it, from the look at the host to the interpreter that the ranks get
interpreters  the Pythons of the host, and what is installed in each
recipe        what is to be made, and the key by which that is kept (pure)
requirements  requirement files, read apart
commands      the installers' commands: heard, stopped, their secrets left out
uv            made by uv
conda         made by conda, or by rattler in its stead
solver        the program that has rattler do it
fitness       torch, CUDA, driver and GPUs, held against each other
archive       it as one file, and as a folder again wherever that lies
cache         archives below the root of runs
keep          the process that puts one there, beside the training
"""
