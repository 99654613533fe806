//! New tokens that could be made durable nowhere, and are tried to be for as long as it takes.

use std::sync::Arc;
use std::time::Duration;

use crate::event::Event;
use crate::refresh::{Locked, keep, save, within};
use crate::session::Core;
use crate::store::{Brief, Commit, Kept};
use crate::token::Tokens;

/// New tokens that no store has yet, and the locks that keep everybody from going on without.
pub(crate) struct Unsaved {
    pub(super) locked: Locked,
    pub(super) tokens: Arc<Tokens>,
    /// Whose refresh token was presented for them.
    pub(super) presented: Brief,
}

impl Unsaved {
    /// Saves until the store or the journal has the tokens, or the login is over.
    pub(crate) async fn keep_saving(mut self, core: &Arc<Core>) {
        let mut pause = SAVE_AGAIN_MIN;
        while core.tokens_of(self.tokens.epoch).is_ok() {
            // A logout ends the pause.
            let _ = within(pause, core.logged_out.notified()).await;
            pause = (pause * 2).min(SAVE_AGAIN_MAX);
            if core.tokens_of(self.tokens.epoch).is_err() {
                break;
            }
            // Behind a write that hangs the next one would only wait.
            let hangs = self.locked.is_free(core).is_err();
            let saved = match hangs && self.keep(core).await {
                true => Ok(Commit::Saved),
                false => save(core, &mut self.locked, &self.tokens, Kept::commit).await,
            };
            let is_durable = match saved {
                Ok(Commit::Saved) => true,
                Ok(Commit::Overtaken) => break,
                Ok(Commit::Out) => {
                    core.logged_out_elsewhere(&self.tokens);
                    break;
                }
                Err(_) => !hangs && self.keep(core).await,
            };
            // Look again: whoever logs out does not wait for the journal.
            if core.is_out(&self.tokens.login).await {
                core.logged_out_elsewhere(&self.tokens);
                break;
            }
            if is_durable {
                core.emit(Event::Persisted);
                break;
            }
        }
        if core.tokens_of(self.tokens.epoch).is_err() {
            core.came_too_late(&self.tokens);
        }
        self.locked.leave(core).await;
    }

    async fn keep(&mut self, core: &Core) -> bool {
        keep(core, &mut self.locked, &self.tokens, &self.presented).await
    }
}

const SAVE_AGAIN_MIN: Duration = Duration::from_millis(200);
const SAVE_AGAIN_MAX: Duration = Duration::from_secs(5);
