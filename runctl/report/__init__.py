"""One HTML file that tells of a run, or of several side by side.

record    what is told, from the run directory
figures   the charts
page      the file
"""
