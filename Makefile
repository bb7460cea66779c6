# Everything runs from a fresh Debian machine with Rust: what is missing is installed first, servers
# are started on free ports and ended again.

.PHONY: help setup check build test test-upstream show show-cluster show-cloudmap show-freshness fuzz bench

help:
	@echo "make test            install what is missing, check the style, run the tests of every day"
	@echo "make test-upstream   run Redis' own test suite against Forebay (UNIT=type/string for one unit)"
	@echo "make show            herds, outages, hostile clients, restarts, waves and pressure in full size, with their figures"
	@echo "make show-cluster    clusters under deaths, sleeps, partitions, joins, drains and restarts in full size, with their figures"
	@echo "make show-freshness  look for old values for ten minutes, and for each thing that keeps them out once without it"
	@echo "make show-cloudmap   build with discovery by AWS Cloud Map, and have nodes find each other by a stand-in for it"
	@echo "make bench           measure Forebay beside redis-server and memcached (ARGS='compare --only get', benches/README.md)"
	@echo "make fuzz            feed ten million frames to the decoder (FRAMES=… for another number)"

setup:
	redis-tests/scripts/setup

# The tests of clusters, too.
WITH_CLUSTERS = --features forebay-redis-tests/cluster

check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets $(WITH_CLUSTERS) -- -D warnings

# One build in one profile serves the node and all tests.
build:
	cargo build --workspace --bins --tests $(WITH_CLUSTERS)

# What of the clusters is tested every day, in small size: what does not fail when nodes wait for a processor for seconds. `make show-cluster`,
# `make show-freshness` and `make show-cloudmap` run the rest. Nextest runs each of these alone (.config/nextest.toml).
EVERY_DAY = every_key_is_answered_by_every_node the_replies_of_a_pipeline_come_in_order \
	several_owners_change_no_error who_reads_from_copies_has_owners_load no_request_of_a_pipeline_overtakes_another_at_its_owner \
	the_doors_differ_in_what_they_do_with_keys_of_other_nodes the_cluster_commands_agree wait_tells_how_many_copies_have_it \
	one_missing_key_is_one_query_whoever_asks a_port_in_use_is_named a_node_that_waits_for_others_ends_in_order \
	the_second_of_two_nodes_with_one_identity_is_turned_away a_node_without_a_certificate_is_refused_in_words_at_both_ends \
	nodes_on_ipv6_forward_and_copy what_a_former_definition_loaded_is_not_served_any_more \
	nodes_find_each_other_by_addresses_and_one_more_appears a_killed_node_loses_no_write_that_two_have_acknowledged \
	moves_keep_the_registers_linearizable all_are_killed_and_started_again \
	a_change_is_seen_at_every_node_and_costs_one_load whoever_is_killed_the_next_keeper_goes_on_where_that_one_was nothing_that_was_replaced_is_served
EVERY_DAY_IN = cluster_clients cluster_all_keys cluster_bad_input cluster_tls cluster_ipv6 cluster_groups cluster_discovery cluster_faults cluster_moves cluster_freshness cluster_kafka cluster_checker
empty =
ONE_OF_EVERY_DAY = ($(subst $(empty) $(empty),|,$(strip $(EVERY_DAY))))

test: setup check build
	@if cargo nextest --version >/dev/null 2>&1; then \
		cargo nextest run --workspace $(WITH_CLUSTERS) --no-fail-fast -E 'not binary(/^cluster_/) | test(/^$(ONE_OF_EVERY_DAY)$$/)'; \
	else \
		cargo test --workspace --no-fail-fast && \
		cargo test --workspace $(WITH_CLUSTERS) --no-fail-fast $(EVERY_DAY_IN:%=--test %) -- --exact --test-threads=1 $(EVERY_DAY); \
	fi

UNIT ?=
test-upstream:
	redis-tests/scripts/setup upstream
	cargo build -p forebay
	redis-tests/scripts/upstream $(if $(UNIT),--unit $(UNIT))

# In full size the figures are worth something: a release build, one test at a time, and the slowest of
# 10,000 replies held to three times the load's own time.
SHOW = readthrough herd outage hostile drain expiry_wave pressure bound
show:
	redis-tests/scripts/setup
	cargo build --release -p forebay
	FOREBAY_BIN="$${CARGO_TARGET_DIR:-target}/release/forebay" FOREBAY_HERD=10000 FOREBAY_HERD_RATIO=3 FOREBAY_KEYS=1000000 FOREBAY_READERS=1000 FOREBAY_LARGE=64 FOREBAY_LIMIT=256 \
		cargo test -p forebay-redis-tests $(SHOW:%=--test %) -- --nocapture --test-threads=1

SHOW_CLUSTER = cluster_clients cluster_all_keys cluster_libraries cluster_faults cluster_hot_keys cluster_partitions cluster_moves cluster_frontend cluster_bad_input cluster_groups cluster_kafka cluster_discovery cluster_tls cluster_ipv6
show-cluster:
	redis-tests/scripts/setup
	cargo build --release -p forebay
	FOREBAY_BIN="$${CARGO_TARGET_DIR:-target}/release/forebay" FOREBAY_HERD=9000 FOREBAY_ROUNDS=7 FOREBAY_CLIENTS=60 FOREBAY_ANSWERS=20000 FOREBAY_KEYS=100000 FOREBAY_FAULT_SECONDS=10 FOREBAY_FILLING=1000000 FOREBAY_CLAIMS=1 \
		cargo test -p forebay-redis-tests --features cluster $(SHOW_CLUSTER:%=--test %) -- --nocapture --test-threads=1

SHOW_FRESHNESS = freshness cluster_freshness cluster_checker tracking cluster_tracking writes writes_behind cluster_writes
show-freshness:
	redis-tests/scripts/setup
	cargo build --release -p forebay
	FOREBAY_BIN="$${CARGO_TARGET_DIR:-target}/release/forebay" FOREBAY_CHECK_SECONDS=600 FOREBAY_CHECK_READERS=48 FOREBAY_CHECK_COMMITS=240 FOREBAY_FAULTS=all FOREBAY_OUTAGE_SECONDS=60 FOREBAY_CLAIMS=1 \
		cargo test -p forebay-redis-tests --features cluster $(SHOW_FRESHNESS:%=--test %) -- --nocapture --test-threads=1

# The SDK of AWS takes long to build, so nothing else does it.
show-cloudmap:
	redis-tests/scripts/setup cloudmap
	cargo build -p forebay --features cloudmap
	FOREBAY_BIN="$${CARGO_TARGET_DIR:-target}/debug/forebay" \
		cargo test -p forebay-redis-tests --features cloudmap --test cluster_cloudmap -- --nocapture --test-threads=1
	cargo test -p forebay-cluster --features cloudmap discovery

FRAMES ?= 10000000
fuzz:
	FOREBAY_FUZZ_FRAMES=$(FRAMES) cargo test -p forebay-resp --release fuzz -- --nocapture

ARGS ?= all
bench:
	redis-tests/scripts/setup bench
	cargo build --release -p forebay -p forebay-benches --bins
	"$${CARGO_TARGET_DIR:-target}/release/forebay-benches" $(ARGS)
