"""What everything stands on: errors, files, configs, progress, pools, the compiler."""
