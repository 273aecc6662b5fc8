//! ticketlog
pub mod batch;
pub mod dead_letter;
pub mod event;
pub mod retry;
pub mod broker {
    pub mod settlement;
}
