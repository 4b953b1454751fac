# Every step is a script or a cargo command that can be run by hand as well.
.PHONY: help build demo test chaos bench sabotage lint clean-cache

help:
	@echo "make demo         a Salesforce org is copied into PostgreSQL over Kafka, here,"
	@echo "                  and a loader killed on the way"
	@echo "make test         all tests, on a real Kafka and a real PostgreSQL"
	@echo "make chaos        kills, restarts and faults under running migrations;"
	@echo "                  CHAOS=\"--seconds 3600\" or \"--kills 1000\" for long"
	@echo "make bench        measures each stage beside the bare cost of its work;"
	@echo "                  keeps the figures in bench/results"
	@echo "make sabotage     switches off one rule after the other; a named test must"
	@echo "                  turn red each time"
	@echo "make build        the binaries, into target/release"
	@echo "make lint         formatting, clippy, shellcheck where installed"
	@echo "make clean-cache  removes what was downloaded outside the tree (Kafka's jars)"
	@echo "What is missing on this machine is installed where possible (Debian, as root):"
	@echo "deploy/install"

build:
	@deploy/install build
	cargo build --release --bins

demo:
	@deploy/demo

test:
	@tests/run

chaos:
	@mkdir -p bench/results
	@CHAOS="--figures bench/results/chaos.json $${CHAOS:---seconds 240}" tests/run chaos

bench:
	@BENCH_RESULTS=bench/results bench/run

sabotage:
	@tests/run sabotage

lint:
	@tests/run lint

clean-cache:
	@deploy/kafka/local clean
