// A js-libp2p peer: says where it listens, and for each address that it reads, what it finds when it dials there.
Promise.withResolvers ??= () => {
  let resolve, reject
  const promise = new Promise((yes, no) => { resolve = yes; reject = no })
  return { promise, resolve, reject }
}
const { createInterface } = await import('node:readline')
const { createLibp2p } = await import('libp2p')
const { tcp } = await import('@libp2p/tcp')
const { noise } = await import('@libp2p/noise')
const { yamux } = await import('@libp2p/yamux')
const { identify } = await import('@libp2p/identify')
const { ping } = await import('@libp2p/ping')
const { multiaddr } = await import('@multiformats/multiaddr')

const say = (what) => console.log(JSON.stringify(what))
const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: { identify: identify(), ping: ping() }
})
say({ address: node.getMultiaddrs()[0].toString() })

for await (const line of createInterface({ input: process.stdin })) {
  try {
    const address = multiaddr(line.trim())
    const connection = await node.dial(address)
    const rtts = []
    for (let turn = 0; turn < 3; turn++) rtts.push(await node.services.ping.ping(address))
    const { protocols, agentVersion } = await node.services.identify.identify(connection)
    say({ peer: connection.remotePeer.toString(), rtts, protocols, agentVersion, encryption: connection.encryption })
  } catch (error) {
    say({ error: String(error) })
  }
}
await node.stop()
