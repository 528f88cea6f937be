"""What a run says of itself: a writer while it goes on, a meter, alarms, and the report with its plots and figures."""
