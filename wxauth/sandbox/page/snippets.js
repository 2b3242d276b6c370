// The code to copy, with the reader's own address in place of the README's.

import { say } from './text.js'

const WRITTEN = 'http://127.0.0.1:8000'

export function fillSnippets() {
  const field = document.getElementById('address')
  const snippets = [...document.querySelectorAll('.snippet')].map((box) => {
    const code = box.querySelector('code')
    box.querySelector('.copy').addEventListener('click', (event) => copy(code, event.target))
    return [code, code.textContent]
  })
  const fill = () => {
    const address = field.value.trim().replace(/\/+$/, '') || WRITTEN
    for (const [code, text] of snippets) code.textContent = text.replaceAll(WRITTEN, address)
  }
  field.value = location.origin
  field.addEventListener('input', fill)
  fill()
}

async function copy(code, button) {
  try {
    await navigator.clipboard.writeText(code.textContent)
    say(button, 'copied')
    setTimeout(() => say(button, 'copy'), 2000)
  } catch {
    // Where the clipboard is not to be had, the text is at least selected.
    getSelection().selectAllChildren(code)
  }
}
