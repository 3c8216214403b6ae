"""Sweeps: the runs of one command line under `-m`, several at once, as often as it takes.

launcher    the Hydra launcher, through which every sweeper's jobs come
composing   the jobs' configurations, without composing each anew
sweep       takes jobs, has them carried out, waits for them
turn        carries one of them out
job         one of them: whose run it is, what became of it
slots       what of this machine each job gets
places      where jobs write besides their run directories
objective   the number by which a job is judged
budget      what the sweep has cost
book        what is remembered between two commands: sweep.json, sweep.csv
notes       what jobs leave for us that another launcher carries out
board       what is shown meanwhile
table       what is shown at the end
remarks     what is said below that
"""
