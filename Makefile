.PHONY: help demo check test test-arm campaign coverage mutants bench fuzz deb dist dist-check reproducible
.DEFAULT_GOAL := help

help:
	@echo 'make demo             reboot a pretended device through a local hub, and watch'
	@echo 'make check            while working: format, lints, documentation, unit tests'
	@echo 'make test             run all tests; as root those with real machines as well'
	@echo 'make test-arm         the packages for arm64 and armhf on an arm64 system, as root'
	@echo 'make campaign         cut the power hundreds of times, in hours, into tests/systemd/CAMPAIGN.md'
	@echo 'make coverage         what of the sources the Rust tests run through, into target/coverage/html'
	@echo 'make mutants [PART=…] change the sources, and count what the tests notice, into tests/mutants/RESULTS.md'
	@echo 'make bench            measure it beside its peers, half an hour, into bench/RESULTS.md and pictures'
	@echo 'make fuzz             feed the emulator broken input, with a nightly compiler'
	@echo 'make deb [ARCH=…]     build the Debian packages into target/deb/'
	@echo 'make dist [KEY=…]     all of a release, signed, into dist/, as root (docs/release.md)'
	@echo 'make dist-check       test what make dist has left, as root'
	@echo 'make reproducible     build this commit twice and compare the packages'

demo:
	@scripts/demo

check:
	@scripts/check

test:
	@tests/run

test-arm:
	@tests/systemd/run --arm

campaign:
	@tests/systemd/run --campaign

coverage:
	@scripts/coverage

mutants:
	@tests/mutants/run $(PART)

bench:
	@bench/run

fuzz:
	@tests/fuzz/run

deb:
	@packaging/make-deb $(ARCH)

dist:
	@packaging/dist/run

dist-check:
	@tests/dist/run

reproducible:
	@packaging/check-reproducible $(ARCH)
