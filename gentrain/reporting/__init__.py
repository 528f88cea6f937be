"""What runs say of themselves: a writer while one goes on, a meter, alarms; the report of a run, the comparison of a sweep,
and their plots and figures."""
