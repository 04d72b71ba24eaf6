"""What a run tells: numbers for Prometheus, Caffe-format and JSON log lines, progress on a terminal."""
