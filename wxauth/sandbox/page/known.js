// What the page knows of the keys in Redis. Redis does not tell it: their names and their values are keyed hashes and sealed
// bytes. A token begins with the name of its user's hash, and a request shows which counters it used.

/** What each request counts, in the order of its Redis commands. */
const COUNTED = {
  'POST /login': ['logins'],
  'POST /phone': ['numbers', 'numbers.user'],
  'POST /device_authorization': ['asks', 'codes', 'codes.all'],
  'POST /token': ['polls'],
  'GET /device/<user_code>': ['guesses', 'guesses.user'],
  'POST /device/<user_code>': ['guesses', 'guesses.user'],
  'GET /device/<user_code>.png': ['guesses', 'images'],
}

const users = new Map()
const counters = new Map()

/** A user of this page holds `token`. */
export function own(token, user) {
  if (token) users.set(token.slice(4, 26), user)
}

/** The user of the part of a name in braces, as [key, values]. */
export function userOf(tag) {
  return named(users.get(tag))
}

/** The name is the first word: each guesser is another user. */
function named(user) {
  return user ? ['who', { name: user.split(' ')[0] }] : ['who.unknown']
}

/** A request of `user` to `route` made the calls `notes`. */
export function counted(route, notes, user) {
  const words = notes.flatMap((note) => note.commands ?? []).flat().map(String)
  const names = [...new Set(words.map((word) => word.match(/^wxa:l:([0-9a-f]{32}):/)?.[1]).filter(Boolean))]
  COUNTED[route]?.forEach((what, place) => names[place] && counters.set(names[place], { what, user }))
}

/** What the counter `name` counts, and when its window begins and ends, in Unix seconds. */
export function counterOf(name) {
  const [, id, number] = name.match(/^wxa:l:(.+):(\d+)$/)
  const { what, user } = id.startsWith('{') ? { what: 'failures' } : counters.get(id) ?? { what: 'unknown' }
  const window = Math.floor(Date.now() / 1000 / number)
  const who = user ? named(user) : userOf(id.slice(1, -1))
  return { what: [`count.${what}`, { who }], from: number * window, to: (Number(number) + 1) * window }
}
