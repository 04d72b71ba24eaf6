"""What scripts written for pycaffe do."""
