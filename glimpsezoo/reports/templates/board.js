'use strict';
const board = document.getElementById('board'), body = board.tBodies[0], heads = [...board.tHead.rows[0].cells];
function key(row, column) {
  const cell = row.cells[column], value = cell.dataset.value;
  return value === undefined ? cell.textContent : Number(value);
}
function sort(column) {
  const head = heads[column], now = head.getAttribute('aria-sort'), first = head.dataset.first;
  const other = first === 'ascending' ? 'descending' : 'ascending', order = now === first ? other : first;
  const sign = order === 'ascending' ? 1 : -1;
  const rows = [...body.rows].sort((one, two) => {
    const a = key(one, column), b = key(two, column);
    if (a === '' || b === '') return (a === '') - (b === '');
    return sign * (typeof a === 'number' && typeof b === 'number' ? a - b : String(a).localeCompare(String(b)));
  });
  heads.forEach(each => each.removeAttribute('aria-sort'));
  head.setAttribute('aria-sort', order);
  body.append(...rows);
}
heads.forEach((head, column) => head.querySelector('button').addEventListener('click', () => sort(column)));
document.getElementById('filter').addEventListener('input', event => {
  const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const row of body.rows) {
    const text = row.textContent.toLowerCase();
    row.hidden = !words.every(word => text.includes(word));
    shown += !row.hidden;
  }
  document.getElementById('count').textContent = shown + ' of ' + body.rows.length + ' models';
});
