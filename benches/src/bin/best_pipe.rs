//! `bare_pipe.rs` with the worker's allocator.

#[allow(unreachable_pub)]
#[path = "bare_pipe.rs"]
mod pipe;

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() {
    pipe::main();
}
