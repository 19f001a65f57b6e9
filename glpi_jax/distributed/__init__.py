"""The named mesh, the processes of a run, and rules over parameter paths."""
