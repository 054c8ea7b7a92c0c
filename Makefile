.PHONY: help demo test deb
.DEFAULT_GOAL := help

help:
	@echo 'make demo             reboot a pretended device through a local hub, and watch'
	@echo 'make test             run all tests; as root those with real machines as well'
	@echo 'make deb [ARCH=…]     build the Debian packages into target/deb/'

demo:
	@tests/demo

test:
	@tests/run

deb:
	@packaging/make-deb $(ARCH)
