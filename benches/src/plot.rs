//! Owns `docs/develop/performance.svg`: bars for throughput, and for processor time a message of each process.

use std::fmt::Write as _;

/// A row of the plot: messages a second, then microseconds a message of the client, the broker and the database.
pub struct Bar {
    pub name: String,
    pub rate: f64,
    pub micros: [f64; 3],
}

const PROCESSES: [(&str, &str); 3] = [("client", "#1f6feb"), ("RabbitMQ", "#f0883e"), ("MongoDB", "#3fb950")];
const ROW: f64 = 34.0;
const WIDTH: f64 = 330.0;

/// Draws the bars, below the title and the provenance.
pub fn svg(title: &str, provenance: &str, bars: &[Bar]) -> String {
    let height = 86.0 + ROW * bars.len() as f64;
    let mut out = format!(
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 980 {height}' font-family='sans-serif' font-size='13'>\n\
         <rect width='980' height='{height}' fill='white'/>\n\
         <text x='10' y='20' font-weight='bold'>{title}</text>\n\
         <text x='10' y='38' fill='gray'>{provenance}</text>\n\
         <text x='160' y='64'>messages a second</text><text x='540' y='64'>processor, us a message:</text>\n"
    );
    for (at, (name, colour)) in PROCESSES.iter().enumerate() {
        let x = 720.0 + 85.0 * at as f64;
        writeln!(
            out,
            "<rect x='{x}' y='54' width='11' height='11' fill='{colour}'/><text x='{}' y='64'>{name}</text>",
            x + 15.0
        )
        .unwrap();
    }
    let fastest = bars.iter().map(|bar| bar.rate).fold(1.0, f64::max);
    let slowest = bars.iter().map(|bar| bar.micros.iter().sum::<f64>()).fold(1.0, f64::max);
    for (row, bar) in bars.iter().enumerate() {
        let y = 78.0 + ROW * row as f64;
        let length = bar.rate / fastest * WIDTH * 0.85;
        writeln!(out, "<text x='150' y='{}' text-anchor='end'>{}</text>", y + 16.0, bar.name).unwrap();
        writeln!(out, "<rect x='160' y='{y}' width='{length:.1}' height='22' fill='#8250df'/>").unwrap();
        writeln!(out, "<text x='{:.1}' y='{}'>{:.0}</text>", 166.0 + length, y + 16.0, bar.rate).unwrap();
        let mut x = 540.0;
        for (micros, (_, colour)) in bar.micros.iter().zip(PROCESSES) {
            let length = micros / slowest * WIDTH * 0.9;
            writeln!(out, "<rect x='{x:.1}' y='{y}' width='{length:.1}' height='22' fill='{colour}'/>").unwrap();
            if length > 30.0 {
                writeln!(out, "<text x='{:.1}' y='{}' fill='white'>{micros:.1}</text>", x + 4.0, y + 16.0).unwrap();
            }
            x += length;
        }
    }
    out + "</svg>\n"
}
