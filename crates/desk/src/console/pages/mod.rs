//! The pages: one file each, within the frame of `frame`.

mod act;
mod dead_letter;
mod dead_letters;
mod found;
mod frame;
mod history;
mod job;
mod login;
mod now;

pub(super) use act::{ActForm, act_page};
pub(super) use dead_letter::{dead_letter_page, validation};
pub(super) use dead_letters::{first_fetch_page, first_read_page, groups_page, list_page};
pub(super) use frame::{Problem, SCRIPT, STYLE};
pub(super) use history::history_page;
pub(super) use job::{job_page, job_status};
pub(super) use login::login_page;
pub(super) use now::{NowView, now_page, now_status};
