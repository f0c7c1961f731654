//! Every fuzz target for some thousand executions. Those that link the whole program take minutes
//! to build with instrumentation, so here they are called without it, by a simpler fuzzer.

use crate::support::prove;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::path::{Path, PathBuf};

#[expect(unreachable_pub, reason = "the fuzz targets are another crate")]
#[path = "../../../../fuzz/src/configuration.rs"]
mod configuration;

/// What a target gets at least.
const RUNS: u64 = 20_000;

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn targets_that_are_quickly_built_run_twenty_thousand_times_without_a_crash() {
    let targets = ["json_v1", "cose_v1", "verify", "websocket"];
    let sources = sources();
    let mut arguments = vec![
        "--runs",
        "1",
        "--sources",
        sources.to_str().expect("a path in UTF-8"),
    ];
    for target in targets {
        arguments.extend(["--target", target]);
    }
    let proof = prove("fuzz", &arguments);
    for target in targets {
        assert!(
            proof.count(&format!("executions, {target}")) >= RUNS,
            "{}",
            proof.said
        );
        // Without instrumentation the fuzzer would be blind.
        assert!(
            proof.count(&format!("edges covered, {target}")) > 500,
            "{}",
            proof.said
        );
    }
}

#[test]
fn twenty_thousand_configurations_are_taken_or_refused_in_words() {
    alter_corpus("configuration", configuration::check);
}

#[test]
fn twenty_thousand_registries_are_taken_or_refused_in_words() {
    alter_corpus("registry", configuration::check_registry);
}

/// Gives `check` the corpus, and then files of it with some changes.
fn alter_corpus(target: &str, check: fn(&[u8])) {
    let folder = sources().join("fuzz/corpus").join(target);
    let files = std::fs::read_dir(&folder).expect("the corpus is committed");
    let mut paths: Vec<_> = files.map(|file| file.expect("it can be listed").path()).collect();
    paths.sort();
    let corpus: Vec<_> = paths
        .iter()
        .map(|path| std::fs::read(path).expect("it can be read"))
        .collect();
    assert!(
        corpus.len() > 50,
        "{} holds {} files",
        folder.display(),
        corpus.len()
    );
    for input in &corpus {
        check(input);
    }
    let mut chance = StdRng::seed_from_u64(1);
    for _ in 0..RUNS {
        let mut input = corpus[chance.random_range(0..corpus.len())].clone();
        for _ in 0..chance.random_range(1..4) {
            alter(
                &mut input,
                &corpus[chance.random_range(0..corpus.len())],
                &mut chance,
            );
        }
        check(&input);
    }
}

/// Puts a piece of `other`, or nothing, in the place of a piece of `input`.
fn alter(input: &mut Vec<u8>, other: &[u8], chance: &mut StdRng) {
    let mut piece = |bytes: &[u8]| {
        let start = chance.random_range(0..=bytes.len());
        let end = (start + chance.random_range(0..32)).min(bytes.len());
        start..end
    };
    let (taken, put) = (piece(input), piece(other));
    input.splice(taken, other[put].iter().copied());
}
