//! Rust: opens a model, streams a greedy completion, prints which experts worked.

mod mixtral;

use std::io::Write;

/// A line for each layer: which percentage of its tokens' choices fell on each expert.
fn print_experts(counts: &[Vec<u64>]) {
    println!("\n\nshare of each expert (%)");
    for (layer, row) in counts.iter().enumerate() {
        let total: u64 = row.iter().sum();
        print!("layer {}:", layer);
        for count in row {
            print!("{:4}", (100 * count + total / 2) / total);
        }
        println!();
    }
}

fn run(path: &str) -> Result<(), mixtral::Error> {
    let context = mixtral::Context::open(path)?;
    let mut session = mixtral::Session::new(&context, 0.0)?; // greedy
    session.feed(&context.tokenize("RETURN VALUE\n       On success,")?)?;
    let mut out = std::io::stdout();
    session.generate(48, |_, text| out.write_all(text.as_bytes()).and_then(|_| out.flush()).is_ok())?;
    print_experts(&context.routing_counts()?);
    Ok(())
}

fn main() {
    let path = std::env::args().nth(1).unwrap_or_else(|| "examples/models/tiny".into());
    if let Err(error) = run(&path) {
        eprintln!("{}", error);
        std::process::exit(1);
    }
}
