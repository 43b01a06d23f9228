//! One file per script, of the same name: a test for each reply of its header, and for what its RETRY
//! line promises.

mod assign;
mod assign_keys;
mod attempt;
mod beat;
mod commit;
mod count;
mod delete;
mod drop_pool;
pub mod exchange;
mod generate;
mod inspect;
mod keep_alive;
mod layout;
mod list;
mod noscript;
mod register;
mod reserve;
mod set_pool;
mod set_user;
mod settle;
mod sweep;
mod unblock;
pub mod wait;
mod wait_keys;
