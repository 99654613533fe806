//! The rules of refresh tokens: rotation, grace, reuse, context, expiry.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::config::{Config, Reuse};
use crate::family::{Context, Family, FamilyId, Step};
use crate::history::{Entry, What};
use crate::issued::Issued;

/// Every grant the server has made.
pub(crate) struct Grants {
    /// Family `n` is at `n - 1`.
    families: Vec<Family>,
    /// Which family and generation a token, of either kind, belongs to.
    access: HashMap<String, (FamilyId, usize)>,
    refresh: HashMap<String, (FamilyId, usize)>,
    started: Instant,
}

pub(crate) enum Refreshed {
    Anew(Issued),
    Replayed(Issued),
    Refused(Refusal),
}

/// Why a token was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Unknown,
    Reused,
    OtherContext,
    Revoked,
    Expired,
}

impl Refusal {
    pub(crate) fn description(self) -> &'static str {
        match self {
            Self::Unknown => "the token is unknown",
            Self::Reused => "the token was used before",
            Self::OtherContext => "the token was issued to another context",
            Self::Revoked => "the token is revoked",
            Self::Expired => "the token is expired",
        }
    }
}

impl Grants {
    pub(crate) fn new(started: Instant) -> Self {
        Self { families: Vec::new(), access: HashMap::new(), refresh: HashMap::new(), started }
    }

    pub(crate) fn log_in(
        &mut self,
        config: &Config,
        user: &str,
        context: Option<Context>,
        now: Instant,
    ) -> Issued {
        let id = FamilyId(self.families.len() as u64 + 1);
        let first = Step {
            access: random("at_"),
            access_until: after(now, config.access_ttl),
            refresh: random("rt_"),
            refresh_until: after(now, config.refresh_ttl),
            spent: None,
        };
        self.access.insert(first.access.clone(), (id, 0));
        self.refresh.insert(first.refresh.clone(), (id, 0));
        let issued = Issued::new(config, id, 0, &first, now);
        let mut family = Family::new(id, user, context, first, self.started);
        family.record(What::Login, 0, now);
        self.families.push(family);
        issued
    }

    /// Decides on a refresh token, in the order of what a thief must not learn or gain.
    pub(crate) fn refresh(
        &mut self,
        config: &Config,
        token: &str,
        context: &Context,
        now: Instant,
    ) -> Refreshed {
        let Some(&(id, generation)) = self.refresh.get(token) else {
            return Refreshed::Refused(Refusal::Unknown);
        };
        let family = &mut self.families[index(id)];
        let step = &family.steps[generation];
        let forgiven = step.spent.is_some_and(|at| now < after(at, config.grace));

        if step.spent.is_some() && !forgiven {
            family.record(What::Reuse, generation, now);
            match config.reuse {
                Reuse::Ignore => {}
                Reuse::RevokeFamily => {
                    family.revoke(now);
                }
                Reuse::RevokeUser => {
                    let user = family.user.clone();
                    self.revoke_user(&user, now);
                }
            }
            return Refreshed::Refused(Refusal::Reused);
        }
        if !family.in_context(context) {
            family.record(What::ContextRefused, generation, now);
            return Refreshed::Refused(Refusal::OtherContext);
        }
        if !family.alive {
            return Refreshed::Refused(Refusal::Revoked);
        }
        if now >= step.refresh_until {
            family.record(What::Expired, generation, now);
            return Refreshed::Refused(Refusal::Expired);
        }
        if forgiven {
            let next = generation + 1;
            family.record(What::GraceReplay, next, now);
            return Refreshed::Replayed(Issued::new(
                config,
                id,
                next as u64,
                &family.steps[next],
                now,
            ));
        }
        Refreshed::Anew(self.advance(config, id, now))
    }

    fn advance(&mut self, config: &Config, id: FamilyId, now: Instant) -> Issued {
        let family = &mut self.families[index(id)];
        let next = family.generation() + 1;
        let step = &mut family.steps[next - 1];
        let (refresh, refresh_until, what) = if config.rotation {
            step.spent = Some(now);
            (random("rt_"), after(now, config.refresh_ttl), What::Rotated)
        } else {
            (step.refresh.clone(), step.refresh_until, What::Refreshed)
        };
        let step = Step {
            access: random("at_"),
            access_until: after(now, config.access_ttl),
            refresh,
            refresh_until,
            spent: None,
        };
        self.access.insert(step.access.clone(), (id, next));
        self.refresh.insert(step.refresh.clone(), (id, next));
        let issued = Issued::new(config, id, next as u64, &step, now);
        family.steps.push(step);
        family.record(what, next, now);
        issued
    }

    /// The user and the generation of an access token that is good now.
    pub(crate) fn accept(
        &mut self,
        token: &str,
        context: &Context,
        now: Instant,
    ) -> Result<(String, FamilyId, usize), Refusal> {
        let &(id, generation) = self.access.get(token).ok_or(Refusal::Unknown)?;
        let family = &mut self.families[index(id)];
        if !family.in_context(context) {
            family.record(What::ContextRefused, generation, now);
            return Err(Refusal::OtherContext);
        }
        if !family.alive {
            return Err(Refusal::Revoked);
        }
        if now >= family.steps[generation].access_until {
            return Err(Refusal::Expired);
        }
        Ok((family.user.clone(), id, generation))
    }

    pub(crate) fn revoke(&mut self, id: FamilyId, now: Instant) -> bool {
        self.families.get_mut(index(id)).is_some_and(|family| family.revoke(now))
    }

    /// How many families this revoked.
    pub(crate) fn revoke_user(&mut self, user: &str, now: Instant) -> u64 {
        let of_user = self.families.iter_mut().filter(|f| f.user == user);
        of_user.map(|family| u64::from(family.revoke(now))).sum()
    }

    pub(crate) fn expire_access(&mut self, now: Instant) {
        for step in self.families.iter_mut().flat_map(|f| &mut f.steps) {
            step.access_until = step.access_until.min(now);
        }
    }

    pub(crate) fn expire_refresh(&mut self, now: Instant) {
        for step in self.families.iter_mut().flat_map(|f| &mut f.steps) {
            step.refresh_until = step.refresh_until.min(now);
        }
    }

    /// The family and generation of a token of either kind, good or not.
    pub(crate) fn find(&self, token: &str) -> Option<(FamilyId, usize)> {
        let found = self.refresh.get(token).or_else(|| self.access.get(token));
        found.copied()
    }

    pub(crate) fn family(&self, id: FamilyId) -> Option<&Family> {
        self.families.get(index(id))
    }

    pub(crate) fn families(&self) -> &[Family] {
        &self.families
    }

    pub(crate) fn history(&self, id: FamilyId) -> Vec<Entry> {
        self.family(id).map_or_else(Vec::new, |family| family.history.clone())
    }

    /// The refresh token that the family would rotate next, if it is alive.
    pub(crate) fn current(&self, id: FamilyId) -> Option<&str> {
        let family = self.family(id).filter(|family| family.alive)?;
        Some(family.steps.last()?.refresh.as_str())
    }
}

fn index(id: FamilyId) -> usize {
    id.0 as usize - 1
}

/// So far off that it is never: an `Instant` cannot hold every `Duration`.
pub(crate) fn after(now: Instant, time: Duration) -> Instant {
    now.checked_add(time.min(FOREVER)).unwrap_or(now)
}

pub(crate) fn random(prefix: &str) -> String {
    let mut bytes = [0; 16];
    // Fails only where the system has no source of randomness at all.
    getrandom::fill(&mut bytes).expect("the system has no randomness");
    format!("{prefix}{:032x}", u128::from_be_bytes(bytes))
}

const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
