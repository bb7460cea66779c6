//! LOLWUT: a forebay in its valley, new with every call.

use super::super::call::{Call, Flow};
use super::super::error::CommandError;

/// Columns and rows of the drawing unless the caller asks for others, and the most that are drawn.
const COLUMNS: (usize, usize) = (66, 160);
const ROWS: (usize, usize) = (9, 40);

/// What water looks like.
const WAVES: [char; 6] = ['~', '~', '-', '~', '=', ' '];

/// Whichever version of the art is asked for, there is one.
pub(super) fn lolwut(call: &mut Call<'_>) -> Result<Flow, CommandError> {
    let arguments = match call.args.len() >= 3 && call.is(1, "version") {
        true => {
            call.integer(2)?;
            3
        }
        false => 1,
    };
    let columns = size(call, arguments, COLUMNS);
    let rows = size(call, arguments + 1, ROWS);
    let art = draw(columns, rows, &mut rand::random::<u32>);
    let signed = format!("{art}\nForebay ver. {}\n", env!("CARGO_PKG_VERSION"));
    call.reply.verbatim("txt", signed.as_bytes());
    Ok(Flow::Continue)
}

/// Argument `at` as a size, within bounds; what is no number asks for nothing.
fn size(call: &Call<'_>, at: usize, (default, most): (usize, usize)) -> usize {
    match at < call.args.len() {
        true => call.integer(at).map_or(default, |size| usize::try_from(size).unwrap_or(0).clamp(8, most)),
        false => default,
    }
}

/// Hills above, the pool below, and the wall of the dam with its intake on the right.
fn draw(columns: usize, rows: usize, random: &mut impl FnMut() -> u32) -> String {
    let surface = rows / 3;
    let mut hill = surface as i32 / 2;
    let hills: Vec<usize> = (0..columns)
        .map(|_| {
            hill = (hill + (random() % 3) as i32 - 1).clamp(0, surface as i32);
            hill as usize
        })
        .collect();
    let mut art = String::new();
    for row in 0..rows {
        let wall = columns - columns / 8 - (rows - row) / 3;
        art.extend((0..columns).map(|column| match (row < surface, column >= wall) {
            (_, true) => {
                if row == rows - 2 {
                    'O'
                } else {
                    '#'
                }
            }
            (true, _) if row >= hills[column] => '.',
            (true, _) => ' ',
            (false, _) => WAVES[random() as usize % WAVES.len()],
        }));
        art.truncate(art.trim_end().len());
        art.push('\n');
    }
    art
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_keeps_to_its_size() {
        let mut seed = 7u32;
        let mut random = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            seed >> 8
        };
        for (columns, rows) in [(8, 8), (66, 9), (160, 40)] {
            let art = draw(columns, rows, &mut random);
            assert!(art.lines().all(|line| line.chars().count() <= columns), "{art}");
            assert!(art.contains('~') && art.contains('#'), "{art}");
        }
    }
}
