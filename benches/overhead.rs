//! What the middleware costs a request with a fresh token, in instructions: beside no middleware,
//! and beside those that people write. By callgrind, so that the figures are the same at each run;
//! they depend a little on the memory's layout, so that the median of several is taken.
//!
//! `cargo bench --bench overhead` needs valgrind, and takes about a minute.

#[path = "../tests/support/layers.rs"]
mod layers;

use std::env;
use std::process::Command;

use layers::{LAYERS, Layer, Subject};
use tokio::runtime::Builder;

fn main() {
    if let (Ok(layer), Ok(count)) = (env::var(LAYER), env::var(COUNT)) {
        return send(&layer, count.parse().expect("a number"));
    }
    println!("instructions of a request, over those without a middleware (median of {LAYOUTS})");
    let bare = median(Layer::None);
    let figures = LAYERS.map(|(layer, name)| (layer, name, median(layer) - bare));
    let peer = figures.iter().find(|(layer, ..)| *layer == Layer::HeaderWithClone);
    let peer = peer.map_or(1, |(.., figure)| *figure);
    println!("{:36}{bare:>8}", "no middleware");
    for (layer, name, figure) in figures {
        if layer != Layer::None {
            let ratio = figure as f64 / peer as f64;
            let goal = if layer == Layer::Reauth { "   goal: 1.20 or less" } else { "" };
            println!("{name:36}{:>8} {ratio:>6.2}{goal}", format!("+{figure}"));
        }
    }
}

fn median(layer: Layer) -> i64 {
    let mut counts: Vec<_> = (0..LAYOUTS).map(|layout| per_request(layer, layout)).collect();
    counts.sort_unstable();
    counts[LAYOUTS / 2]
}

/// What is the same for few requests and for many, such as the program's start, is in neither.
fn per_request(layer: Layer, layout: usize) -> i64 {
    (instructions(layer, MANY, layout) - instructions(layer, FEW, layout)) / (MANY - FEW) as i64
}

fn instructions(layer: Layer, count: usize, layout: usize) -> i64 {
    let this = env::current_exe().expect("this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .env(LAYER, format!("{layer:?}"))
        .env(COUNT, count.to_string())
        // The environment is on the stack, below everything else.
        .env("LAYOUT", "x".repeat(layout * 24))
        .output()
        .expect("valgrind: install it");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let line = said.lines().find_map(|line| line.split_once("Collected : "));
    let (_, count) = line.unwrap_or_else(|| panic!("no count: {said}"));
    count.trim().parse().expect("a number")
}

fn send(layer: &str, count: usize) {
    let (layer, _) = (LAYERS.into_iter())
        .find(|(known, _)| format!("{known:?}") == layer)
        .expect("a layer of this bench");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { Subject::new(layer).await.send(count).await });
}

const LAYER: &str = "OVERHEAD_LAYER";
const COUNT: &str = "OVERHEAD_COUNT";
const FEW: usize = 500;
const MANY: usize = 1500;
const LAYOUTS: usize = 5;
