//! Who lost what, and why: by the server's history, beside what the workers said.

use std::collections::{HashMap, HashSet};

use mock_server::{Entry, FamilyId, Recorded, Route, What};

use super::logins;
use super::said::Said;
use super::scene::{self, Scene};
use super::story::Noted;

/// What is wrong; counts what is not.
pub fn judge(scene: &mut Scene) -> Vec<String> {
    let mut court = Court::of(scene);
    for number in 0..scene.logins.len() {
        court.login(number);
    }
    court.statements();
    court.requests();
    court.counters();
    let Court { problems, lost, .. } = court;
    for why in lost.into_values().flatten() {
        scene.tally.count(format!("lost: {why}"));
    }
    let counters = scene.server.counters();
    for (what, times) in [
        ("refreshes", counters.refreshes),
        ("grace replays", counters.grace_replays),
        ("reuses", counters.reuses),
        ("logins", counters.logins),
        ("API requests answered", counters.api_ok),
    ] {
        scene.tally.add(format!("server: {what}"), times);
    }
    for (_, noted) in &scene.story.entries {
        let Noted::Said(_, said) = noted else { continue };
        let what = match said {
            Said::Ok(..) => "ok",
            Said::Status(..) => "refused",
            Said::Transient(..) => "transient",
            Said::LoggedOut(..) => "logged out",
            Said::PersistFailed => "persist failed",
            Said::Persisted => "persisted after all",
            Said::LoginFailed(_) => "login failed",
            Said::LogoutFailed(_) => "logout failed",
            _ => continue,
        };
        scene.tally.count(format!("workers: {what}"));
    }
    problems
}

struct Court<'a> {
    scene: &'a Scene,
    presented: Vec<Presented>,
    /// The families and generations that were issued by answers that got lost.
    lost_answers: HashSet<(String, u64)>,
    ended: HashSet<usize>,
    /// The logins that were lost, with the reason where there is one.
    lost: HashMap<usize, Option<&'static str>>,
    problems: Vec<String>,
}

/// A refresh token that came to the server.
struct Presented {
    by: String,
    family: FamilyId,
    generation: u64,
    status: Option<u16>,
}

impl<'a> Court<'a> {
    fn of(scene: &'a Scene) -> Self {
        let requests = scene.server.requests(Route::Token);
        let presented = requests.iter().filter_map(|request| presented(scene, request)).collect();
        let log = scene.log.lock().unwrap();
        let lost_answers = log.iter().filter_map(|line| lost_answer(line)).collect();
        let ended = |(_, noted): &_| match noted {
            Noted::LogsOut(number) => Some(*number),
            _ => None,
        };
        let ended = scene.story.entries.iter().filter_map(ended).collect();
        Self { scene, presented, lost_answers, ended, lost: HashMap::new(), problems: Vec::new() }
    }

    fn wrong(&mut self, what: String) {
        self.problems.push(what);
    }

    /// Whether it lives, was logged out, or was lost.
    fn login(&mut self, number: usize) {
        let family = self.scene.logins[number];
        let history = self.scene.server.history(family);
        let is_alive = self.scene.server.family_alive(family);
        if let Some(reuse) = history.iter().position(|entry| entry.what == What::Reuse) {
            let why = self.reuse(number, &history[..=reuse]);
            // Also where somebody logs out before it is noticed.
            self.lost.insert(number, why);
        } else if !is_alive && !self.ended.contains(&number) {
            self.wrong(format!("login {number} was revoked, though nobody logged out"));
        }
        if is_alive && self.ended.contains(&number) {
            self.wrong(format!("login {number} was logged out, and the server was not told"));
        }
    }

    /// A spent token came back: allowed only where the answer to it can have reached nobody.
    fn reuse(&mut self, number: usize, history: &[Entry]) -> Option<&'static str> {
        let scene = self.scene;
        let (spent, family) = (history[history.len() - 1].generation, scene.logins[number]);
        let issued = history.iter().filter(|entry| entry.what == What::Rotated);
        let newest = issued.map(|entry| entry.generation).max().unwrap_or_default();
        let all: Vec<_> = (self.presented.iter())
            .filter(|it| it.family == family && it.generation == spent)
            .collect();
        // It must be the last that its sender has done.
        let last = |by: &str| self.presented.iter().rfind(|it| it.by == by);
        let fell = |it: &&Presented| {
            let is_last = last(&it.by)
                .is_some_and(|last| (last.family, last.generation) == (it.family, it.generation));
            is_last && died_in_the_gap(scene, &it.by)
        };
        let why = if newest != spent + 1 {
            None
        } else if self.lost_answers.contains(&(family.to_string(), newest)) {
            Some("answer lost")
        } else if all.iter().any(fell) {
            Some("killed between rotation and journal")
        } else {
            None
        };

        let mut problems = Vec::new();
        if why.is_none() {
            problems.push(format!(
                "login {number}: token {spent} was presented again, though {newest} was issued \
                 and nothing explains that it was not kept"
            ));
        }
        if scene.plan.grace {
            problems.push(format!("login {number}: a reuse, though the server forgives"));
        }
        // Who has heard the refusal tells all others.
        let mut refused = all.iter().skip_while(|it| it.status != Some(400));
        if let Some(first) = refused.next() {
            let again = refused.next();
            if let Some(again) = again.filter(|_| !fell(first)) {
                problems.push(format!(
                    "login {number}: {} presented token {spent}, which {} had heard is refused",
                    again.by, first.by
                ));
            }
            let told = scene.story.entries.iter().any(|(_, noted)| match noted {
                Noted::Said(by, Said::LoggedOut(_, why) | Said::Ended(why)) => {
                    *by == first.by && why == "RotationLost"
                }
                _ => false,
            });
            let is_over = self.ended.contains(&number);
            if !told && !is_over && !scene.story.was_killed(&first.by) {
                problems.push(format!("login {number}: {} did not say RotationLost", first.by));
            }
        }
        self.problems.append(&mut problems);
        why
    }

    /// Nobody says logged out while the login lives.
    fn statements(&mut self) {
        let mut knows: HashMap<&str, usize> = HashMap::new();
        let (mut before, mut in_force) = (None, None);
        let mut ended = HashSet::new();
        // The same about the same login is told once.
        let mut told = HashSet::new();
        for (at, noted) in &self.scene.story.entries {
            match noted {
                Noted::LoggedIn(number) => (before, in_force) = (in_force, Some(*number)),
                Noted::LogsOut(number) => {
                    ended.insert(*number);
                }
                Noted::Started(name) => {
                    if let Some(number) = in_force.filter(|number| !ended.contains(number)) {
                        knows.insert(name, number);
                    }
                }
                Noted::Said(by, Said::Ok(_, user)) => {
                    let number = (0..).find(|number| scene::user(*number) == *user).unwrap();
                    knows.insert(by, number);
                }
                Noted::Said(by, said @ (Said::LoggedOut(_, why) | Said::Ended(why))) => {
                    let what = || format!("{at:.3?} {by} says {said:?}");
                    let is_hook = matches!(said, Said::Ended(_));
                    // The hook may come when the next login has begun, and tell of the one before.
                    if is_hook && in_force != before && told.contains(&(by, why, before)) {
                        continue;
                    }
                    if !told.insert((by, why, in_force)) {
                        continue;
                    }
                    if ["Revoked", "RefreshTokenExpired"].contains(&why.as_str()) {
                        self.problems.push(format!("{}, which nobody did", what()));
                    }
                    let Some(number) = knows.get(by.as_str()) else { continue };
                    let is_over = ended.contains(number) || in_force != Some(*number);
                    if !is_over && !self.lost.contains_key(number) {
                        self.problems.push(format!("{}, though login {number} lives", what()));
                    }
                }
                Noted::Said(by, said @ (Said::Failed(..) | Said::Status(..)))
                    if !matches!(said, Said::Status(_, 401)) =>
                {
                    self.problems.push(format!("{at:.3?} {by} says {said:?}"));
                }
                Noted::Died(name) => self.problems.push(format!("{name} died by itself")),
                Noted::Missed(what)
                    if [logins::LOGIN, logins::LOGOUT].contains(&what.as_str())
                        || what.starts_with(scene::GETS_THROUGH)
                        || what.starts_with("the end of") =>
                {
                    self.problems.push(format!("{at:.3?} never came: {what}"));
                }
                _ => {}
            }
        }
    }

    /// No request has the tokens of two logins, or of one that is over and was renewed after.
    fn requests(&mut self) {
        let scene = self.scene;
        let over: HashMap<_, _> = (scene.story.entries.iter())
            .filter_map(|(_, noted)| match noted {
                Noted::LoggedOut(number, newest) => Some((scene.logins[*number], *newest)),
                _ => None,
            })
            .collect();
        let mut families: HashMap<String, FamilyId> = HashMap::new();
        for request in scene.server.requests(Route::Api) {
            let token = request.header("authorization").unwrap_or_default();
            let token = token.trim_start_matches("Bearer ");
            let path = request.path_and_query.clone();
            let Some(family) = scene.server.family_of(token) else { continue };
            let before = families.insert(path.clone(), family);
            if before.is_some_and(|before| before != family) {
                self.wrong(format!("{path} was sent with the tokens of two logins"));
            }
            let generation = scene.server.generation_of(token).unwrap_or_default();
            let too_late = over.get(&family).is_some_and(|newest| generation > *newest);
            if too_late && request.status == Some(200) {
                self.wrong(format!("{path} was answered for a login that is over"));
            }
        }
    }

    /// One refresh for each time that the tokens expired.
    fn counters(&mut self) {
        let scene = self.scene;
        let is_expiry = |noted: &Noted| matches!(noted, Noted::Expired);
        let expiries = scene.story.entries.iter().filter(|(_, noted)| is_expiry(noted)).count();
        let counters = scene.server.counters();
        if counters.refreshes > expiries as u64 {
            self.wrong(format!("{} refreshes for {expiries} expiries", counters.refreshes));
        }
        let lost = scene.logins.iter().flat_map(|family| scene.server.history(*family));
        let reuses = lost.filter(|entry| entry.what == What::Reuse).count();
        if counters.reuses != reuses as u64 {
            self.wrong(format!("{} reuses, {reuses} of them in a login", counters.reuses));
        }
    }
}

/// Killed after it had sent a refresh token, and before the answer was durable.
fn died_in_the_gap(scene: &Scene, worker: &str) -> bool {
    let in_the_gap: &[_] = if scene.plan.in_keychain {
        &["marked", "answered"]
    } else {
        // The file is its own journal.
        &["marked", "answered", "journaled"]
    };
    let step = scene.story.last_step(worker);
    scene.story.was_killed(worker) && step.is_some_and(|step| in_the_gap.contains(&step))
}

fn presented(scene: &Scene, request: &Recorded) -> Option<Presented> {
    let form = form_urlencoded::parse(&request.body);
    let (_, token) = form.into_iter().find(|(name, _)| name == "refresh_token")?;
    Some(Presented {
        by: request.header("user-agent").unwrap_or_default().to_owned(),
        family: scene.server.family_of(&token)?,
        generation: scene.server.generation_of(&token)?,
        status: request.status,
    })
}

/// What the server had issued when it closed the connection, by its log.
fn lost_answer(line: &str) -> Option<(String, u64)> {
    if !line.contains("closed after") && !line.contains("closed halfway") {
        return None;
    }
    let (_, issued) = line.split_once("refreshed family ")?;
    let (family, generation) = issued.split_once(", generation ")?;
    let generation = generation.split(' ').next()?;
    Some((family.to_owned(), generation.parse().ok()?))
}
