// The types of wxauth.d.ts against WeChat's own: `tsc` checks this file, nobody runs it.

import { create, Client, Platform, WxAuthError } from '../../examples/miniprogram/wxauth'

type Without<Option> = Omit<Option, 'success' | 'fail' | 'complete'>

// WeChat's `wx` is a platform, given or not; and so is what has the same calls (Taro, uni).
const platform: Platform = wx
const auth: Client = create({ baseURL: 'https://login.example.com' })
create({ baseURL: 'https://login.example.com', wx, appid: 'wx0123456789abcdef', device: 'a phone' })
create({ baseURL: 'https://login.example.com', wx: platform })
create({
  baseURL: 'https://login.example.com',
  origins: ['https://api.example.com'],
  onEnded: ({ code, action }) => console.log(code, action === 'ask'),
})

interface Orders {
  orders: string[]
}

async function use(
  request: Without<WechatMiniprogram.RequestOption>,
  upload: Without<WechatMiniprogram.UploadFileOption>,
  download: Without<WechatMiniprogram.DownloadFileOption>,
  tap: WechatMiniprogram.ButtonGetPhoneNumber,
  scan: Record<string, string | undefined>, // the parameter of onLoad
): Promise<void> {
  // All of WeChat's own options are options here, and its answers come back.
  const { statusCode, data, header } = await auth.request<Orders>({ url: '/orders', method: 'POST', data: { tea: 1 } })
  const order: string = data.orders[statusCode] + header['Retry-After']
  await auth.request(request)
  const text: string = (await auth.uploadFile(upload)).data
  const path: string = (await auth.downloadFile(download)).tempFilePath

  const socket = wx.connectSocket({
    url: 'wss://api.example.com',
    header: { Authorization: `Bearer ${await auth.token()}` },
  })
  socket.close({})

  await auth.login()
  await auth.login({ force: true })
  const ended: boolean = await auth.logout()

  const { purePhoneNumber }: { purePhoneNumber: string } = await auth.phone(tap.detail.code)
  const { nickName } = await auth.userData<WechatMiniprogram.UserInfo>(() => wx.getUserInfo({ withCredentials: true }))
  const steps = await auth.userData<{ stepInfoList: unknown[] }>(() => wx.getWeRunData({}))
  console.log(order, text, path, ended, purePhoneNumber, nickName, steps.stepInfoList.length)

  const code: string | null = auth.scanned(scan)
  if (code) {
    const { client_name, created_at, expires_in, network } = await auth.device(code)
    console.log(client_name.length, created_at + expires_in, network.length)
    const nothing: void = await auth.approve(code)
    await auth.deny(code).then(() => nothing)
  }
  const address: string = `https://shop.example.com/#ticket=${await auth.ticket()}`
  console.log(address)

  auth.request({ url: '/orders' }).catch((error: WxAuthError) => console.log(error.code, error.answer?.statusCode))
}

// What would be a mistake is one.
// @ts-expect-error: the service's address is needed
create({})
// @ts-expect-error: a platform has WeChat's calls
create({ baseURL: 'https://login.example.com', wx: {} })
// @ts-expect-error: an address is needed
void auth.request({ method: 'GET' })
// @ts-expect-error: there is no such method
void auth.request({ url: '/', method: 'PATCH' })
// @ts-expect-error: a promise takes the place of the callbacks
void auth.request({ url: '/', success() {} })
// @ts-expect-error: a file is needed
void auth.uploadFile({ url: '/' })
// @ts-expect-error: what WeChat sealed, with its iv
void auth.userData(async () => ({ encryptedData: '' }))
// @ts-expect-error: a query that holds no code gives null
void auth.approve(auth.scanned({}))
// @ts-expect-error: the token is a promise
void ('' + auth.token().length)

export default use
