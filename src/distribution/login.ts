// Whether a registry accepts a name and a password: `docker login`.
import { Failure, unknown } from "../lib/errors.ts";
import { type Credentials, parseChallenges } from "./auth.ts";
import { endpointsOf, type RegistryConfig } from "./hosts.ts";

/**
 * Asks `domain`'s /v2/ with these credentials ("docker.io", "host:port"). Answers the refresh token that can stand in for the password from now on,
 * where the registry's token service gives one. Unauthenticated where it refuses them; Unknown where it cannot be reached.
 */
export async function checkLogin(domain: string, config: RegistryConfig, credentials: Credentials): Promise<string | undefined> {
  let failure: unknown;
  let refreshToken = credentials.identityToken;
  const keep = (token: string) => {
    refreshToken = token;
  };
  for (const { base, transport, authorizer } of endpointsOf(domain, config, credentials, false, keep)) {
    const url = new URL("/v2/", base);
    let response: Response;
    try {
      response = await transport.request(url, {});
    } catch (error) {
      failure = error;
      continue;
    }
    if (response.status === 401) {
      const header = await authorizer.answer(parseChallenges(response.headers.get("www-authenticate") ?? ""), "");
      await response.body?.cancel();
      if (!header) throw new Failure("Unauthenticated", `Get "${url}": unauthorized: incorrect username or password`);
      response = await transport.request(url, { headers: { authorization: header } });
    }
    await response.body?.cancel();
    if (response.status === 200) return refreshToken;
    if (response.status === 401 || response.status === 403) {
      throw new Failure("Unauthenticated", `login attempt to ${url} failed with status: ${response.status} Unauthorized`);
    }
    throw unknown(`login attempt to ${url} failed with status: ${response.status}`);
  }
  throw failure ?? unknown(`no address is known for ${domain}`);
}
