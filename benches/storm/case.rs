//! One case: a server, programs that are told to begin, and what came of it.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use mock_server::{Fault, Issued, MockServer, Route};
use reqwest_reauth::TokenResponse;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use crate::by_hand::Tokens;
use crate::program::{Deed, Login, Outcome, PROGRAM, Peer, Program, READY};
use crate::sheet::Sheet;
use crate::steady::{Latencies, TTL};
use crate::{many, ms};

pub struct Case {
    pub what: String,
    pub deed: Deed,
    pub programs: usize,
    /// How long the server takes for a refresh.
    pub takes: Duration,
    /// What else is in store.
    pub prepare: fn(&MockServer),
    /// Whether the server refuses the tokens that the programs begin with.
    pub is_stale: bool,
    pub rounds: usize,
}

/// What came of all programs' requests: the counts of the worst round, the median of the times.
#[derive(Default)]
pub struct Measured {
    pub ok: usize,
    pub failed: usize,
    pub unauthorized: u64,
    pub token_requests: u64,
    reuses: u64,
    times: Vec<Duration>,
    pub freed: Option<Duration>,
    pub latencies: Option<[Latencies; 2]>,
}

impl Case {
    pub fn new(what: &str) -> Self {
        Self {
            what: what.to_owned(),
            deed: Deed::AtOnce(1),
            programs: 1,
            takes: Duration::from_millis(50),
            prepare: |_| {},
            is_stale: true,
            rounds: 3,
        }
    }

    /// Each round has all of them, one after the other.
    pub fn against<const N: usize>(&self, peers: [Peer; N]) -> (Sheet, [Measured; N]) {
        let mut all = peers.map(|_| Measured::default());
        for _ in 0..self.rounds {
            for (peer, measured) in peers.into_iter().zip(&mut all) {
                measured.add(self.measure(peer));
            }
        }
        let title = match self.takes {
            Duration::ZERO => self.what.clone(),
            takes => format!("{}; a refresh takes {takes:?}", self.what),
        };
        let names = ["", "ok", "failed", "401s", "token requests", "reuses", "ms", "ratio"];
        let mut sheet = Sheet::new(title, names);
        let least = all.iter().map(Measured::ms).next().unwrap_or_default();
        for (peer, measured) in peers.into_iter().zip(&all) {
            sheet.row([
                name(peer),
                measured.ok.to_string(),
                measured.failed.to_string(),
                measured.unauthorized.to_string(),
                measured.token_requests.to_string(),
                measured.reuses.to_string(),
                format!("{:.1}", measured.ms()),
                format!("{:.2}", measured.ms() / least),
            ]);
        }
        (sheet, all)
    }

    pub fn measure(&self, peer: Peer) -> Measured {
        let runtime = Runtime::new().expect("a runtime");
        let directory = tempfile::tempdir().expect("a directory");
        let ttl = if self.deed == Deed::Steady { TTL } else { Duration::from_secs(300) };
        let server = MockServer::builder().access_ttl(ttl).start().expect("a server");
        let lasting = (self.deed == Deed::Steady).then(MockServer::start);

        let log_in = |server: &MockServer, name: &str| {
            let (issued, file) = (server.log_in("alice"), directory.path().join(name));
            runtime.block_on(login(server, &issued, &file))
        };
        let program = Program {
            peer,
            deed: self.deed,
            login: log_in(&server, "tokens"),
            lasting: lasting.as_ref().map(|server| log_in(server, "lasting")),
        };
        server.barrier(Route::Api, self.programs * self.deed.connections());
        let mut programs: Vec<_> = (0..self.programs).map(|_| Running::start(&program)).collect();
        for program in &mut programs {
            assert_eq!(program.said::<String>(), READY);
        }
        (self.prepare)(&server);
        if !self.takes.is_zero() {
            server.on_next(Route::Token, 1000, Fault::Delay(self.takes));
        }
        if self.is_stale {
            server.expire_access_tokens();
        }

        // A program that refreshes by itself has its client by then.
        let client = reqwest::Client::new();
        let begun = Instant::now();
        programs.iter_mut().for_each(|program| program.tell("go"));
        match (peer, self.deed) {
            (Peer::Bare, _) => {
                for program in &mut programs {
                    let _: Outcome = program.said();
                }
                let token = runtime.block_on(refresh(&client, &program.login));
                programs.iter_mut().for_each(|program| program.tell(&token));
            }
            (_, Deed::DropFirst(_)) => {
                while server.counters().token_requests == 0 {
                    std::thread::yield_now();
                }
                programs.iter_mut().for_each(|program| program.tell("go on"));
            }
            _ => {}
        }
        let outcomes: Vec<Outcome> = programs.iter_mut().map(Running::said).collect();
        let time = begun.elapsed();
        let counters = server.counters();
        programs.into_iter().for_each(Running::end);
        Measured {
            ok: outcomes.iter().map(|outcome| outcome.ok).sum(),
            failed: outcomes.iter().map(|outcome| outcome.failed).sum(),
            unauthorized: counters.api_unauthorized,
            token_requests: counters.token_requests,
            reuses: counters.reuses,
            times: vec![time],
            freed: outcomes[0].freed,
            latencies: outcomes[0].latencies,
        }
    }
}

impl Measured {
    fn add(&mut self, round: Self) {
        let is_first = self.times.is_empty();
        self.ok = if is_first { round.ok } else { self.ok.min(round.ok) };
        self.failed = self.failed.max(round.failed);
        self.unauthorized = self.unauthorized.max(round.unauthorized);
        self.token_requests = self.token_requests.max(round.token_requests);
        self.reuses = self.reuses.max(round.reuses);
        self.freed = self.freed.max(round.freed);
        self.times.extend(round.times);
    }

    pub fn ms(&self) -> f64 {
        let mut times = self.times.clone();
        times.sort();
        ms(times.get(times.len() / 2).copied())
    }

    pub fn is_one_refresh_for(&self, requests: usize) -> bool {
        (self.ok, self.failed, self.token_requests, self.reuses) == (requests, 0, 1, 0)
    }

    pub fn told(&self) -> String {
        let lost = if self.reuses > 0 { ", the session lost" } else { "" };
        let refreshes = many(self.token_requests, "refresh");
        format!("{refreshes}, {} failed, {} × 401{lost}", self.failed, self.unauthorized)
    }
}

/// Alice's, in a file, as a program finds it when it starts.
async fn login(server: &MockServer, issued: &Issued, file: &Path) -> Login {
    let tokens = Tokens {
        access: issued.access_token.clone(),
        refresh: issued.refresh_token.clone(),
        lifetime: issued.expires_in,
    };
    let file = file.to_owned();
    let login = Login { origin: server.origin(), token_url: server.token_url(), tokens, file };
    let response = TokenResponse::from_json(issued.json().as_bytes()).expect("tokens");
    login.session().log_in(response).await.expect("a login");
    login
}

async fn refresh(client: &reqwest::Client, login: &Login) -> String {
    let form = [("grant_type", "refresh_token"), ("refresh_token", &login.tokens.refresh)];
    let answer = client.post(&login.token_url).form(&form).send().await;
    let answer: serde_json::Value = answer.expect("an answer").json().await.expect("JSON");
    answer["access_token"].as_str().expect("a token").to_owned()
}

struct Running {
    child: Child,
    orders: ChildStdin,
    says: BufReader<ChildStdout>,
}

impl Running {
    fn start(program: &Program) -> Self {
        let mut child = Command::new(env::current_exe().expect("this program"))
            .env(PROGRAM, serde_json::to_string(program).expect("JSON"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this program once more");
        let orders = child.stdin.take().expect("piped");
        let says = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, orders, says }
    }

    fn tell(&mut self, order: &str) {
        writeln!(self.orders, "{order}").expect("it listens");
    }

    fn said<T: DeserializeOwned>(&mut self) -> T {
        let mut line = String::new();
        self.says.read_line(&mut line).expect("it speaks");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: it said {line:?}"))
    }

    fn end(mut self) {
        drop(self.orders);
        assert!(self.child.wait().expect("it ends").success());
    }
}

pub fn name(peer: Peer) -> String {
    let name = match peer {
        Peer::Bare => "in two waves, told when to go on",
        Peer::Mutex => "a tokio::sync::Mutex, by hand",
        Peer::Reauth => "this crate",
    };
    name.to_owned()
}

/// Ten thousand requests at once are as many connections, at both ends.
#[cfg(unix)]
pub fn raise_the_limit_of_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit of open files");
    setrlimit(Resource::RLIMIT_NOFILE, most, most).expect("up to the hard limit");
}

#[cfg(not(unix))]
pub fn raise_the_limit_of_open_files() {}
