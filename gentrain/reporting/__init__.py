"""What runs say of themselves: writer, meter and alarms while one goes on; the report of a run and the comparison of a
sweep, with their plots and figures."""
