"""Write data sets as databases that Caffe reads: MNIST, CIFAR-10, digits, lists of images, means."""
