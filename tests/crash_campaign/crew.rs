//! The workers of a run, as running processes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use super::programs;
use super::said::{Order, Said};
use super::story::{Noted, Story};
use super::worker::Setting;

pub struct Crew {
    setting: Setting,
    workers: Vec<Worker>,
    started: usize,
    lines: Receiver<Line>,
    sender: Sender<Line>,
}

struct Worker {
    name: String,
    child: Child,
    /// `None` once it was asked to end.
    orders: Option<ChildStdin>,
}

/// Who said what; `None` at the end of its output.
type Line = (String, Option<Said>);

impl Crew {
    pub fn new(setting: Setting) -> Self {
        let (sender, lines) = mpsc::channel();
        Self { setting, workers: Vec::new(), started: 0, lines, sender }
    }

    /// Starts one more, and returns its name.
    pub fn start(&mut self, story: &mut Story) -> String {
        self.started += 1;
        let name = format!("w{}", self.started);
        let setting = Setting { name: name.clone(), ..self.setting.clone() };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["worker", &serde_json::to_string(&setting).unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        story.note(Noted::Started(name.clone()));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, by) = (self.sender.clone(), name.clone());
        std::thread::spawn(move || {
            for line in output.lines() {
                let said = serde_json::from_str(&line.unwrap()).unwrap();
                if sender.send((by.clone(), Some(said))).is_err() {
                    return;
                }
            }
            let _ = sender.send((by, None));
        });
        let orders = child.stdin.take();
        self.workers.push(Worker { name: name.clone(), child, orders });
        name
    }

    /// Those that run, the oldest first.
    pub fn names(&self) -> Vec<String> {
        self.workers.iter().map(|worker| worker.name.clone()).collect()
    }

    pub fn order(&mut self, name: &str, order: &Order) {
        let line = serde_json::to_string(order).unwrap() + "\n";
        let worker = self.workers.iter_mut().find(|worker| worker.name == name);
        // One that has died by itself is found by the end of its output.
        if let Some(orders) = worker.and_then(|worker| worker.orders.as_mut()) {
            let _ = orders.write_all(line.as_bytes());
        }
    }

    pub fn order_all(&mut self, order: &Order) {
        for name in self.names() {
            self.order(&name, order);
        }
    }

    /// Listens until `is_it` is said, or this time is over; whether it was.
    pub fn hear(
        &mut self,
        story: &mut Story,
        limit: Duration,
        mut is_it: impl FnMut(&str, &Said) -> bool,
    ) -> Option<String> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let (by, said) = self.lines.recv_timeout(left).ok()?;
            let Some(said) = said else {
                self.left(story, &by);
                continue;
            };
            let found = is_it(&by, &said);
            story.note(Noted::Said(by.clone(), said));
            if found {
                return Some(by);
            }
        }
    }

    /// The output of one that was not killed has ended.
    fn left(&mut self, story: &mut Story, name: &str) {
        let Some(index) = self.workers.iter().position(|worker| worker.name == name) else {
            return;
        };
        let mut worker = self.workers.remove(index);
        let said_bye = story
            .entries
            .iter()
            .rev()
            .any(|(_, noted)| matches!(noted, Noted::Said(by, Said::Bye) if by == name));
        let status = worker.child.wait().unwrap();
        if !said_bye || !status.success() {
            story.note(Noted::Died(name.to_owned()));
        }
    }

    /// As `kill -9`; what it had said is heard.
    pub fn kill(&mut self, story: &mut Story, name: &str) -> bool {
        let Some(index) = self.workers.iter().position(|worker| worker.name == name) else {
            return false;
        };
        let mut worker = self.workers.remove(index);
        worker.child.kill().unwrap();
        worker.child.wait().unwrap();
        // Its output ends with it.
        while let Ok((by, said)) = self.lines.recv_timeout(PATIENCE) {
            match said {
                Some(said) => story.note(Noted::Said(by, said)),
                None if by == name => break,
                None => self.left(story, &by),
            }
        }
        story.note(Noted::Killed(name.to_owned()));
        true
    }

    /// Sends a signal, such as `-STOP`.
    pub fn signal(&self, name: &str, signal: &str) {
        if let Some(worker) = self.workers.iter().find(|worker| worker.name == name) {
            programs::signal(&worker.child, signal);
        }
    }

    /// Waits for one that was asked to end.
    pub fn ends(&mut self, story: &mut Story, name: &str) {
        let end = Instant::now() + PATIENCE;
        while self.workers.iter().any(|worker| worker.name == name) {
            if Instant::now() > end {
                story.note(Noted::Missed(format!("the end of {name}")));
                self.kill(story, name);
                return;
            }
            self.hear(story, TICK, |_, _| false);
        }
    }

    /// Asks all to end, and waits for that.
    pub fn end(&mut self, story: &mut Story) {
        for worker in &mut self.workers {
            worker.orders = None;
        }
        for name in self.names() {
            self.ends(story, &name);
        }
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.child.kill();
            let _ = worker.child.wait();
        }
    }
}

/// As long as a worker may take to end: a refresh that was sent is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often is looked for what nobody says.
pub const TICK: Duration = Duration::from_millis(5);
