//! The `meshstore` command.

/// A node makes and frees many small records on several threads, which the system's allocator is slow at (ARCHITECTURE.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    meshstore::cli::main()
}
