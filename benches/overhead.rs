//! What the middleware costs a request with a fresh token, in instructions: beside no middleware,
//! and beside those that people write; alone, and with all that a request over loopback takes. By
//! callgrind, so that the figures are the same at each run; they depend a little on the memory's
//! layout, so that the median of several is taken.
//!
//! `cargo bench --bench overhead` needs valgrind, and takes about two minutes.

#[path = "../tests/support/layers.rs"]
mod layers;
mod sheet;

use std::env;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::thread;

use layers::{LAYERS, Layer, Subject};
use sheet::{Claim, Sheet};
use tokio::runtime::Builder;

fn main() {
    if let (Ok(layer), Ok(count)) = (env::var(LAYER), env::var(COUNT)) {
        return send(&layer, count.parse().expect("a number"));
    }
    alone().print();
    over_loopback().print();
}

/// To a terminal that answers from memory.
fn alone() -> Sheet {
    let title = "instructions of a request, over those without a middleware";
    let mut sheet = Sheet::new(title, ["", "instructions", "ratio"]);
    let (bare, more) = figures("");
    let more_of = |layer| more.iter().find(|(it, ..)| *it == layer).map_or(1, |(.., more)| *more);
    let clone = more_of(Layer::HeaderWithClone) as f64;
    sheet.row(["no middleware".to_owned(), bare.to_string(), String::new()]);
    for (_, name, more) in &more {
        sheet.row([(*name).to_owned(), format!("+{more}"), format!("{:.2}", *more as f64 / clone)]);
    }
    let [ours, mutex] = [Layer::Reauth, Layer::Mutex].map(|layer| more_of(layer) as f64 / clone);
    sheet.claims.push(Claim {
        what: "a request with a fresh token, the middleware alone".to_owned(),
        figure: format!("{ours:.2} × a constant header with `try_clone`"),
        goal: "≤ 1.20 ×".to_owned(),
        is_met: ours <= 1.2,
        peer: format!("{mutex:.2} ×"),
    });
    sheet
}

fn over_loopback() -> Sheet {
    let title = "instructions of a whole request over loopback";
    let mut sheet = Sheet::new(title, ["", "instructions", "more"]);
    let url = serve().expect("a server");
    let (bare, more) = figures(&url);
    let percent = |more: i64| format!("{:+.1} %", more as f64 / bare as f64 * 100.0);
    sheet.row(["no middleware".to_owned(), bare.to_string(), String::new()]);
    for (_, name, more) in &more {
        sheet.row([(*name).to_owned(), (bare + more).to_string(), percent(*more)]);
    }
    let more_of = |layer| more.iter().find(|(it, ..)| *it == layer).map_or(0, |(.., more)| *more);
    let ours = more_of(Layer::Reauth);
    sheet.claims.push(Claim {
        what: "a request with a fresh token, whole, over loopback".to_owned(),
        figure: format!("{} instructions", percent(ours)),
        goal: "≤ +7 %".to_owned(),
        is_met: ours as f64 <= bare as f64 * 0.07,
        peer: format!(
            "by hand {}, a constant header {}",
            percent(more_of(Layer::Mutex)),
            percent(more_of(Layer::Header))
        ),
    });
    sheet
}

/// Those without a middleware, and how many more with each.
fn figures(url: &str) -> (i64, Vec<(Layer, &'static str, i64)>) {
    let bare = median(Layer::None, url);
    let others = LAYERS.into_iter().filter(|(layer, _)| *layer != Layer::None);
    (bare, others.map(|(layer, name)| (layer, name, median(layer, url) - bare)).collect())
}

/// Answers whatever it is asked.
fn serve() -> io::Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}/things", listener.local_addr()?);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // It ends with the client.
            thread::spawn(move || answer(stream));
        }
    });
    Ok(url)
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    let (mut read, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Ok(());
        }
        read.extend_from_slice(&buffer[..count]);
        if read.ends_with(b"\r\n\r\n") {
            read.clear();
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        }
    }
}

fn median(layer: Layer, url: &str) -> i64 {
    let mut counts: Vec<_> = (0..LAYOUTS).map(|layout| per_request(layer, url, layout)).collect();
    counts.sort_unstable();
    counts[LAYOUTS / 2]
}

/// What is the same for few requests and for many, such as the program's start, is in neither.
fn per_request(layer: Layer, url: &str, layout: usize) -> i64 {
    let of = |count| instructions(layer, url, count, layout);
    (of(MANY) - of(FEW)) / (MANY - FEW) as i64
}

fn instructions(layer: Layer, url: &str, count: usize, layout: usize) -> i64 {
    let this = env::current_exe().expect("this program");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(this)
        .env(LAYER, format!("{layer:?}"))
        .env(COUNT, count.to_string())
        .env(URL, url)
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
    // As any program that does more than this: a process with one thread is spared the locks of
    // the allocator, which would be a difference of the session's own thread alone.
    thread::spawn(thread::park);
    let (layer, _) = (LAYERS.into_iter())
        .find(|(known, _)| format!("{known:?}") == layer)
        .expect("a layer of this bench");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let url = env::var(URL).unwrap_or_default();
    runtime.block_on(async {
        let subject = match url.parse() {
            Ok(url) => Subject::at(url, layer).await,
            Err(_) => Subject::new(layer).await,
        };
        subject.send(count).await;
    });
}

const LAYER: &str = "OVERHEAD_LAYER";
const COUNT: &str = "OVERHEAD_COUNT";
/// Where a server is; empty for the terminal.
const URL: &str = "OVERHEAD_URL";
const FEW: usize = 500;
const MANY: usize = 1500;
const LAYOUTS: usize = 5;
