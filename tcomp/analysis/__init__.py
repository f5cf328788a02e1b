"""Questions about programs: regions, dependences, dataflow. Nothing here changes a program."""
